"""One style for tables, figures and controls; knows no stage."""
