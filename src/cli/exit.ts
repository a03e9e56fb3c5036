/** Ends the program with a message, the usage and exit code 2: the command line is wrong. */
export class UsageError extends Error {}

/** Ends the program with one line and exit code 1: it cannot start or go on. */
export class StartError extends Error {}
