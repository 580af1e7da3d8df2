"""What each verb of the command line does; `cli` imports them one by one, when they are called."""
