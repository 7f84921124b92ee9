/* Capabilities and what else decides what a process may do. All of it holds for the calling thread alone and is inherited
 * by the threads and processes that it starts: call it while there is one thread. */

_Static_assert(_LINUX_CAPABILITY_U32S_3 == 2, "capability sets of 64 bits");

static struct __user_cap_header_struct this_thread(void)
{
    return (struct __user_cap_header_struct){.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
}

int pv_get(uint64_t sets[5])
{
    struct __user_cap_header_struct header = this_thread();
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data))
        return errno;
    memset(sets, 0, 5 * sizeof *sets);
    sets[0] = data[0].permitted | (uint64_t)data[1].permitted << 32;
    sets[1] = data[0].effective | (uint64_t)data[1].effective << 32;
    sets[2] = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
    for (unsigned capability = 0; capability < 64; capability++) {
        int bounding = prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
        if (bounding < 0)
            break; /* EINVAL: the kernel has no more */
        sets[3] |= (uint64_t)(bounding == 1) << capability;
        sets[4] |= (uint64_t)(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, capability, 0, 0) == 1) << capability;
    }
    return 0;
}

int pv_set(uint64_t permitted, uint64_t effective, uint64_t inheritable)
{
    struct __user_cap_header_struct header = this_thread();
    struct __user_cap_data_struct data[2];
    for (unsigned half = 0; half < 2; half++) {
        data[half].permitted = (uint32_t)(permitted >> 32 * half);
        data[half].effective = (uint32_t)(effective >> 32 * half);
        data[half].inheritable = (uint32_t)(inheritable >> 32 * half);
    }
    return syscall(SYS_capset, &header, data) ? errno : 0;
}

int pv_drop_bounding(uint64_t keep)
{
    for (unsigned capability = 0; capability < 64; capability++) {
        int bounding = prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
        if (bounding < 0)
            break;
        if (bounding == 1 && !(keep >> capability & 1) && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0))
            return errno;
    }
    return 0;
}

int pv_clear_ambient(void)
{
    return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) ? errno : 0;
}

int pv_raise_ambient(uint64_t capabilities)
{
    for (unsigned capability = 0; capability < 64; capability++)
        if (capabilities >> capability & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))
            return errno;
    return 0;
}

int pv_set_no_new_privs(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? errno : 0;
}

int pv_get_no_new_privs(void)
{
    return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
}

int pv_set_parent_death_signal(int number)
{
    return prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) ? errno : 0;
}

int pv_close_proc(void)
{
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) ? errno : 0;
}
