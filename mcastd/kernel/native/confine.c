/* System calls that a process without privilege still has, and the server no use for: namespaces, in which it would have every
 * capability and the kernel's rarely used parts would listen to it; programs; other processes of its own user.
 * The list names what is forbidden, so a new libc or library does not break on it. */

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define NATIVE_ARCH AUDIT_ARCH_RISCV64
#endif

#ifdef NATIVE_ARCH

enum { CONFINE_NAMESPACES = 0x7E020080 }; /* every CLONE_NEW* flag of linux/sched.h */

static const uint32_t forbidden_calls[] = {
    SYS_execve,       SYS_execveat,       SYS_unshare,       SYS_setns,         SYS_chroot,       SYS_pivot_root,  SYS_mount,
    SYS_umount2,      SYS_move_mount,     SYS_open_tree,     SYS_fsopen,        SYS_fsconfig,     SYS_fsmount,     SYS_fspick,
    SYS_ptrace,       SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp,    SYS_bpf,          SYS_perf_event_open,
    SYS_userfaultfd,  SYS_io_uring_setup, SYS_keyctl,        SYS_add_key,       SYS_request_key,  SYS_init_module,
    SYS_finit_module, SYS_delete_module,  SYS_reboot,        SYS_swapon,        SYS_swapoff,      SYS_setpriority,
    SYS_ioprio_set,   SYS_pidfd_send_signal, SYS_tkill,      SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo,
    SYS_sched_setscheduler, SYS_sched_setparam, SYS_sched_setattr, SYS_sched_setaffinity, SYS_personality,
#ifdef SYS_kexec_load
    SYS_kexec_load,
#endif
#ifdef SYS_kexec_file_load
    SYS_kexec_file_load,
#endif
#ifdef SYS_mount_setattr
    SYS_mount_setattr,
#endif
#ifdef SYS_pidfd_getfd
    SYS_pidfd_getfd,
#endif
#ifdef SYS_process_madvise
    SYS_process_madvise,
#endif
};

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
/* Low half of an argument; all of these systems are little-endian. */
#define LOAD_ARGUMENT(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[n]))
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (skip))
#define IF(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (skip), 0)
#define IF_ANY(bits, skip) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (bits), (skip), 0)
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define REFUSE(number) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (number))

int pv_confine(void)
{
    enum { CALLS = sizeof forbidden_calls / sizeof *forbidden_calls };
    uint32_t self = (uint32_t)getpid();
    const struct sock_filter head[] = {
        LOAD(arch),
        IF(NATIVE_ARCH, 1),
        REFUSE(EPERM), /* calls of another architecture have other numbers */
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1), /* as have those of x32 */
        REFUSE(EPERM),
        UNLESS(SYS_clone3, 1), /* its flags are in memory, where no filter looks: libc falls back on clone */
        REFUSE(ENOSYS),
        UNLESS(SYS_clone, 4),
        LOAD_ARGUMENT(0),
        IF_ANY(CONFINE_NAMESPACES, 1),
        ALLOW,
        REFUSE(EPERM),
        UNLESS(SYS_kill, 4),
        LOAD_ARGUMENT(0),
        UNLESS(self, 1),
        ALLOW,
        REFUSE(EPERM),
        UNLESS(SYS_tgkill, 4),
        LOAD_ARGUMENT(0),
        UNLESS(self, 1),
        ALLOW,
        REFUSE(EPERM),
        UNLESS(SYS_prlimit64, 5),
        LOAD_ARGUMENT(0),
        IF(0, 1),
        UNLESS(self, 1),
        ALLOW,
        REFUSE(EPERM),
        UNLESS(SYS_fcntl, 6), /* "send that process this signal when input comes" */
        LOAD_ARGUMENT(1),
        IF(8, 3),  /* F_SETOWN */
        IF(10, 2), /* F_SETSIG */
        IF(15, 1), /* F_SETOWN_EX, asm-generic/fcntl.h */
        ALLOW,
        REFUSE(EPERM),
        UNLESS(SYS_ioctl, 5),
        LOAD_ARGUMENT(1),
        IF(0x8901, 2), /* FIOSETOWN */
        IF(0x8902, 1), /* SIOCSPGRP, asm-generic/sockios.h */
        ALLOW,
        REFUSE(EPERM),
    };
    struct sock_filter code[sizeof head / sizeof *head + CALLS + 2];
    struct sock_filter *next = code;
    memcpy(next, head, sizeof head);
    next += sizeof head / sizeof *head;
    for (unsigned n = 0; n < CALLS; n++)
        *next++ = (struct sock_filter)IF(forbidden_calls[n], (uint8_t)(CALLS - n));
    *next++ = (struct sock_filter)ALLOW;
    *next++ = (struct sock_filter)REFUSE(EPERM);
    const struct sock_fprog program = {.len = (unsigned short)(next - code), .filter = code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) ? errno : 0;
}

#undef LOAD
#undef LOAD_ARGUMENT
#undef UNLESS
#undef IF
#undef IF_ANY
#undef ALLOW
#undef REFUSE

#else

int pv_confine(void)
{
    return ENOSYS;
}

#endif
