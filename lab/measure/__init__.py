"""The paper's experiment as data: a scenario says which ways, links and disks; each run leaves a result file, and
what is there is not run again."""
