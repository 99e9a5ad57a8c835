"""The command line `penstock`: one module per command, imported when it is called."""
