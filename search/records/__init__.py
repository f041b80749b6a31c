"""What a run keeps: its folder, the study, the records in it, what follows from them."""
