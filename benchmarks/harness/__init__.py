"""What workloads share: processes and their times, one judge, one table, one record."""
