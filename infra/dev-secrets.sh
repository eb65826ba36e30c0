#!/usr/bin/env bash
# Random secrets for the dev overlay, made once: what exists is left alone.
set -euo pipefail

missing() { ! kubectl --namespace updraft get secret "$1" >/dev/null 2>&1; }
password_of() { kubectl --namespace updraft get secret "$1" --output jsonpath='{.data.password}' | base64 --decode; }
make_secret() { kubectl --namespace updraft create secret generic "$@"; }

kubectl apply --server-side --filename "$(dirname "$0")/base/namespace.yaml"
if missing postgres; then
  password=$(openssl rand -hex 24)
  make_secret postgres --from-literal=password="$password"
  make_secret updraft-stores \
    --from-literal=events="postgresql://updraft:$password@postgres:5432/events" \
    --from-literal=mlflow="postgresql+psycopg://updraft:$password@postgres:5432/mlflow"
fi
if missing ray-gcs-redis; then
  make_secret ray-gcs-redis --from-literal=password="$(openssl rand -hex 24)"
fi
if missing updraft-features; then
  make_secret updraft-features \
    --from-literal=database="postgresql://updraft:$(password_of postgres)@postgres:5432/features" \
    --from-literal=online="redis://:$(password_of ray-gcs-redis)@redis:6379/1"
fi
if missing updraft-serving; then
  make_secret updraft-serving --from-literal=token="$(openssl rand -hex 32)"
fi
