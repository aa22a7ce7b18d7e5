"""The pricing service: prices, Greeks and implied volatilities over HTTP; start it with `qsde serve`."""
