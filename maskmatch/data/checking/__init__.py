"""What is wrong or strange with a data set, found before the first step or by a command of its own."""
