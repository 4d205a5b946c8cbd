/* cached_command.h -- the text protocol: a subset of memcached's, and sessions.
 *
 *   get <key>*                                         VALUE <key> <flags> <bytes>, the value ..., END
 *   set <key> <flags> <exptime> <bytes> [noreply]      STORED; the value follows the line
 *   append <key> <flags> <exptime> <bytes> [noreply]   STORED, NOT_STORED; the flags and time are ignored
 *   incr | decr <key> <number> [noreply]               the new number, NOT_FOUND
 *   touch <key> <exptime> [noreply]                    TOUCHED, NOT_FOUND
 *   delete <key> [noreply]                             DELETED, NOT_FOUND
 *   session set | append <name> <word>                 LENGTH <bytes of the field>
 *   session get <name>                                 VALUE <name> 0 <bytes>, the value, END
 *   session clear                                      OK
 *   stats | flush_all | version | quit
 *
 * exptime is in seconds from now; 0: never; negative: at once. Lines end with "\r\n" (or "\n"). What is wrong
 * with a line is told by one line, ERROR, CLIENT_ERROR <why> or SERVER_ERROR <why>, and the connection goes
 * on.
 */
#ifndef CACHED_COMMAND_H
#define CACHED_COMMAND_H

#include <stddef.h>

struct connection;
struct item;

/* Runs a command line without its line end, or prepares to receive its value. */
void command_run(struct connection *connection, const char *line, size_t size);

/* The value of the command in connection->request has come; takes over the caller's reference to it. */
void command_finish(struct connection *connection, struct item *item);

/* Frees connection->request, if there is one. */
void command_forget(struct connection *connection);

#endif
