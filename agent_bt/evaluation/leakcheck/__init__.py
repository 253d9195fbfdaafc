"""Did the model remember the market instead of reading it: cut-off, masks, recall, counterfactual histories."""
