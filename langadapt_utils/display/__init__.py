"""One style for tables, figures and controls, independent of the stages."""
