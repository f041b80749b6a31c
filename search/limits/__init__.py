"""What a trial must keep: WER budgets, cost limits, groups, early stopping."""
