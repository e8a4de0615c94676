"""The paper, cell by cell: its tables, figures and claims from real data."""
