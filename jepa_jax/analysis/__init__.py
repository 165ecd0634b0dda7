"""What scores are good for: evaluation, selection, several views, reports."""
