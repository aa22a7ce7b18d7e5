"""The pricing service: prices, Greeks, scenarios and calibration jobs over HTTP; start it with `qsde serve`."""
