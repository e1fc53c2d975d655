"""From a config file to a run folder: config -> run -> results -> figure."""
