"""Where a store lies: a folder, or a bucket that has neither locks nor appends."""
