"""One module a finding."""
