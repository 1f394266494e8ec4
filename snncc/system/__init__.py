"""What snncc owes the machine it runs on: whole files, locks, its own cache, ends in good order."""
