# How many threads a call gets, of those that it asks for.
#
# What      share(n): how many, 1 to n, the next call of this thread may use.
#           enter, leave: a call begins, and ends; counted if it asked for several threads.
#           in_flight: how many are between the two.
#           look: lets Python's signal handlers run, inside of a call.
# Why       Each Python thread has a team of OpenMP's threads of its own, so calls at once
#           would crowd the processors: they share n.
#           GCC's OpenMP ends the process, by exit(1), when the system refuses it a thread,
#           as limits of processes and of memory do. So threads that the team of this
#           Python thread does not have yet are tried here: all are started at once, end,
#           and are forgotten by the system before OpenMP starts its own.
# Parallel  every Python thread alone, but for one counter. OpenMP ends what a smaller team
#           does not need, and starts it again for a larger one: so a thread that had to
#           share keeps to its share for CALM calls.
# Assumes   nothing: compiled once. Threads are only tried on Linux.
# Why not   Counting in Python: a Ctrl-C between two lines would leave a wrong count for
#           ever. Counting and sharing in one: scratch is lent between the two.

from cpython.exc cimport PyErr_CheckSignals


cdef extern from *:
    """
    static __thread int cc_asked;       /* for a share of more than one */
    static __thread int cc_inside;      /* this thread is in a call that asked */
    static __thread int cc_made = 1;    /* the size of its team */
    static __thread int cc_share;       /* what it may use, if it had to share; or 0 */
    static __thread int cc_calm;        /* calls since that would have given more */
    static int cc_calls;                /* threads that are inside */
    #if defined(_WIN32)
      static int cc_process(void) { return 0; }
    #else
      #include <unistd.h>
      static int cc_process(void) { return (int)getpid(); }
    #endif
    static __thread int cc_home;        /* the process in which it got inside */
    enum { CC_CALM = 64, CC_MOST = 1024, CC_STACK = 64 << 10 };

    #if defined(_OPENMP) && defined(__linux__)
      #include <pthread.h>
      #include <sched.h>
      #include <stdlib.h>
      #include <sys/syscall.h>
      #include <unistd.h>

      /* The stack of OpenMP's threads, in bytes; 0 for that of all threads. */
      static size_t cc_stack(void) {
          const char *given = getenv("OMP_STACKSIZE");
          char *end;
          unsigned long size;
          if (!given) given = getenv("GOMP_STACKSIZE");
          if (!given) return 0;
          size = strtoul(given, &end, 10);
          while (*end == ' ') end++;
          switch (*end) {
              case 'b': case 'B': return size;
              case 'm': case 'M': return size << 20;
              case 'g': case 'G': return size << 30;
              default: return size << 10;
          }
      }

      static void *cc_guest(void *gate) {
          long id = syscall(SYS_gettid);
          pthread_mutex_lock((pthread_mutex_t *)gate);
          pthread_mutex_unlock((pthread_mutex_t *)gate);
          return (void *)id;
      }

      /* Start threads that are there all at once, and end them: how many could be. */
      static int cc_try(int wanted) {
          pthread_t guests[CC_MOST];
          pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
          pthread_attr_t attr;
          size_t stack = cc_stack();
          int n = 0, i, looks;
          if (stack && stack < CC_STACK) return 0;
          if (wanted > CC_MOST) wanted = CC_MOST;
          if (pthread_attr_init(&attr)) return 0;
          if (stack) pthread_attr_setstacksize(&attr, stack);
          pthread_mutex_lock(&gate);
          while (n < wanted && !pthread_create(&guests[n], &attr, cc_guest, &gate)) n++;
          pthread_mutex_unlock(&gate);
          for (i = 0; i < n; i++) {
              void *id = 0;
              pthread_join(guests[i], &id);
              /* Joined is not yet forgotten: until then it counts for the limits. */
              for (looks = 0; looks < 100000; looks++) {
                  if (syscall(SYS_tgkill, getpid(), (long)id, 0)) break;
                  sched_yield();
              }
          }
          pthread_attr_destroy(&attr);
          return n;
      }
    #else
      #define cc_try(wanted) (wanted)
    #endif

    /* What n is, shared with the other calls; soon less, late more. */
    static int cc_part(int n) {
        int calls = 1 + __atomic_load_n(&cc_calls, __ATOMIC_RELAXED) - cc_inside;
        int part = n / calls > 1 ? n / calls : 1;
        if (cc_share && part > cc_share && ++cc_calm < CC_CALM) {
            return cc_share < n ? cc_share : n;
        }
        cc_calm = 0;
        cc_share = part < n ? part : 0;
        return part;
    }

    static int cc_get(int n) {
        cc_asked = 1;
        n = cc_part(n);
        if (n > cc_made) n = cc_made + cc_try(n - cc_made);
        if (n > 1) cc_made = n;
        return n;
    }

    static void cc_enter(void) {
        if (!cc_asked || cc_inside) return;  /* inside: of a signal handler */
        cc_asked = 0;
        cc_inside = 1;
        cc_home = cc_process();
        __atomic_add_fetch(&cc_calls, 1, __ATOMIC_RELAXED);
    }

    static void cc_leave(void) {
        if (!cc_inside) return;
        cc_inside = 0;
        __atomic_sub_fetch(&cc_calls, 1, __ATOMIC_RELAXED);
    }

    /* In a child that a signal handler forked: the other threads are not there. */
    static int cc_lost(void) { return cc_inside && cc_home != cc_process(); }
    """
    int cc_lost()
    int cc_get(int n)
    void cc_enter()
    void cc_leave()
    int cc_calls


cdef void enter() noexcept:
    """Begin a call, in this thread."""
    cc_enter()


cdef void leave() noexcept:
    """End it."""
    cc_leave()


cdef int look() except -1:
    """Let Python look for signals, between two rounds of a call."""
    PyErr_CheckSignals()
    if cc_lost():
        raise RuntimeError(
            "convcore: a call with several threads cannot end in a child that was forked "
            "inside of it, by a signal handler"
        )
    return 0


def share(int n, /):
    """Give how many threads, 1 to n, the next call of this thread may use."""
    return cc_get(n) if n > 1 else 1


def in_flight():
    """Count the calls that asked for several threads, have begun and not ended."""
    return cc_calls
