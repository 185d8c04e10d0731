"""The mind: scenarios, workloads, costs, schedules, plans, engines, planner, reports and the command line."""
