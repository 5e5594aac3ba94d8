// ran: runs a program and notes which of its functions run, each once. For hack/pgo.sh, on x86-64 Linux.
//
//   nm --format=sysv PROGRAM | ran NOTES PROGRAM [ARGUMENT...]
//
// Standard input: its functions, as nm has them ("name|address|class|FUNC|..."). NOTES: their names, one a line, appended as
// they run, for the program may be killed. A breakpoint at the start of each function is taken away when it is first met, so
// that what runs is the program at its own speed on the machine's own CPU: of functions that are there for several kinds of
// CPU those are noted that this one takes. The program keeps the process; who watches it is a child.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

struct function {
    uint64_t address;
    unsigned char first; // Its first byte, while the breakpoint is there.
    char present;
    char *name;
};

static struct function *functions;
static size_t count;

static void die(const char *what) {
    fprintf(stderr, "ran: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int by_address(const void *a, const void *b) {
    uint64_t x = ((const struct function *)a)->address, y = ((const struct function *)b)->address;
    return (x > y) - (x < y);
}

// Functions with one address, which have several names, are one.
static void read_functions(void) {
    char *line = NULL;
    size_t room = 0, space = 0;
    while (getline(&line, &room, stdin) > 0) {
        char *save, *name = strtok_r(line, "| ", &save), *address = strtok_r(NULL, "| ", &save);
        char *class = strtok_r(NULL, "| ", &save), *type = strtok_r(NULL, "| ", &save);
        if (!type || (strcmp(type, "FUNC") && strcmp(type, "IFUNC")) || !strchr("tTwWi", *class)) continue;
        if (count == space) {
            space = space ? 2 * space : 1 << 15;
            if (!(functions = realloc(functions, space * sizeof *functions))) die("memory");
        }
        functions[count++] = (struct function){.address = strtoull(address, NULL, 16), .name = strdup(name)};
    }
    qsort(functions, count, sizeof *functions, by_address);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || functions[kept - 1].address != functions[i].address) functions[kept++] = functions[i];
    }
    count = kept;
}

// Where the program lies: its first mapping.
static uint64_t base_of(pid_t process) {
    char path[64];
    uint64_t base = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", process);
    FILE *maps = fopen(path, "r");
    if (!maps || fscanf(maps, "%lx-", &base) != 1) die(path);
    fclose(maps);
    return base;
}

static int memory_of(pid_t process) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", process);
    int memory = open(path, O_RDWR | O_CLOEXEC);
    if (memory < 0) die(path);
    return memory;
}

static void watch(int memory, uint64_t base) {
    const unsigned char breakpoint = 0xcc;
    for (size_t i = 0; i < count; i++) {
        struct function *function = &functions[i];
        off_t at = (off_t)(base + function->address);
        function->present = pread(memory, &function->first, 1, at) == 1 && pwrite(memory, &breakpoint, 1, at) == 1;
    }
}

// Whether a thread stopped at one of ours; if so it goes on as if nothing had been there.
static int met(pid_t thread, int memory, uint64_t base, int notes) {
    struct user_regs_struct registers;
    if (ptrace(PTRACE_GETREGS, thread, 0, &registers)) return 0;
    struct function key = {.address = registers.rip - 1 - base};
    struct function *function = bsearch(&key, functions, count, sizeof key, by_address);
    if (!function) return 0;
    if (function->present) {
        function->present = 0;
        if (pwrite(memory, &function->first, 1, (off_t)(registers.rip - 1)) != 1) die("write a byte back");
        dprintf(notes, "%s\n", function->name);
    }
    // Else another thread was first.
    registers.rip--;
    return ptrace(PTRACE_SETREGS, thread, 0, &registers) == 0;
}

static void attend(pid_t process, int notes) {
    int memory = -1, status;
    uint64_t base = 0;
    pid_t thread;
    while ((thread = waitpid(-1, &status, __WALL)) > 0) {
        if (!WIFSTOPPED(status)) continue;
        int stopped_by = WSTOPSIG(status), event = status >> 16, pass = 0;
        if (event == PTRACE_EVENT_EXEC) {
            memory = memory_of(process);
            base = base_of(process);
            watch(memory, base);
        } else if (event == 0 && !(stopped_by == SIGTRAP && memory >= 0 && met(thread, memory, base, notes))) {
            pass = stopped_by;
        }
        ptrace(PTRACE_CONT, thread, 0, pass);
    }
}

int main(int arguments, char **argument) {
    if (arguments < 3) {
        fprintf(stderr, "usage: nm --format=sysv PROGRAM | ran NOTES PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    read_functions();
    int ready[2];
    if (pipe2(ready, O_CLOEXEC)) die("pipe");
    pid_t process = getpid(), watcher = fork();
    if (watcher < 0) die("fork");
    if (watcher == 0) {
        int notes = open(argument[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (notes < 0) die(argument[1]);
        if (ptrace(PTRACE_SEIZE, process, 0, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC)) die("ptrace");
        if (write(ready[1], "", 1) != 1) die("pipe");
        attend(process, notes);
        _exit(0);
    }
    char byte;
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1) return 1;
    execv(argument[2], argument + 2);
    die(argument[2]);
}
