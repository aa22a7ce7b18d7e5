"""What the service keeps: surfaces, fits and jobs in tables, their columns of numbers as Parquet beside them."""
