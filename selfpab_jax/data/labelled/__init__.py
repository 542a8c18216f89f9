"""Public labelled data sets, as published, in g and on HUNT4's axes."""
