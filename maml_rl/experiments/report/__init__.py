"""What a report says about runs: gathered from their folders and, if asked for, from an evaluation."""
