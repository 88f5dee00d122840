"""What is told about exchanges: counters, histograms and the exchange log."""
