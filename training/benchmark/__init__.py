"""The comparisons behind docs/: each trains its models once, saves what they say, and makes tables from that."""
