"""What filers share whatever their store is: the files of outputs, found."""
