"""Works: projects, their milestones and tasks, templates of them, and the queues of the people who do the work."""
