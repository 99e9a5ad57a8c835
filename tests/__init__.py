"""The tests of Penstock; the folders mirror the packages."""
