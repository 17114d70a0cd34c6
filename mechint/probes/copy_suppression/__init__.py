"""Copy suppression: heads that lower the logit of a token they attend to."""
