"""Claims that can be rerun: one file in; table, figures, report and manifest out."""
