"""Calibrations as jobs that survive their service: a durable queue (dbos), the process that runs it, its workers."""
