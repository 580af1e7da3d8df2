"""Run folders and what is at work on them: session, folder, facts, slices."""
