"""The IR: typed graphs of operators in static single assignment form, as data, as text, checked and rewritten."""
