"""Whether records are fit to train on: Great Expectations suites and the run that judges them."""
