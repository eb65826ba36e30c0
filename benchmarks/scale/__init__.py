"""How far one machine goes: every stage of the loop from 1 to 14 million rows, and a table 700 columns wide."""
