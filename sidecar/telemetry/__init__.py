"""What is told about exchanges: counters, histograms, the exchange log, samples."""
