"""From the log, through the model, back to the log; the only home of Faust."""
