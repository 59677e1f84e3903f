"""What filers share whatever their store is: the files of a work list, found and staged."""
