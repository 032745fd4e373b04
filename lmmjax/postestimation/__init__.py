"""What follows a fit: functions of `Fitted`, `FittedMany` and `ModelData`: numbers, records, frames."""
