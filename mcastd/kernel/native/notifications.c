/* Notifications of changes of the MFC and of interfaces' mc_forwarding, decoded into the records of mfc_dump.c.
 *
 * The messages are those of mroute_netlink_event (net/ipv4/ipmr.c), mr6_netlink_event (net/ipv6/ip6mr.c) and, for VIFs, of
 * inet_netconf_notify_devconf (net/ipv4/devinet.c) and inet6_netconf_notify_devconf (net/ipv6/addrconf.c).
 * Nothing is read past the given size, whatever the lengths inside say. */

#define MR_REMOVED 2
#define NOTICES_AT_ONCE 64
#define NOTICE_MAX 4096 /* an entry with 32 oifs has 400 bytes */
#define RECORD_FLAGS 37

typedef struct mr_notices {
    mr_dump *mfc;
    int vifs;
    int changes;
} mr_notices;

mr_notices *mr_notices_new(int ipv6)
{
    mr_notices *notices = calloc(1, sizeof *notices);
    if (!notices)
        return NULL;
    notices->mfc = mr_dump_new(ipv6, 0);
    if (!notices->mfc) {
        free(notices);
        return NULL;
    }
    return notices;
}

void mr_notices_free(mr_notices *notices)
{
    if (!notices)
        return;
    mr_dump_free(notices->mfc);
    free(notices);
}

int mr_filter_notices(int fd)
{
    /* BPF loads in network order what netlink has in the machine's. Each notification is a datagram of its own. */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_type)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __cpu_to_be16(RTM_NEWROUTE), 0, 2),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, NLMSG_HDRLEN + offsetof(struct rtmsg, rtm_protocol)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RTPROT_MROUTED, 4, 3),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __cpu_to_be16(RTM_DELROUTE), 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, NLMSG_HDRLEN + offsetof(struct rtmsg, rtm_flags)),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, __cpu_to_be32(RTNH_F_UNRESOLVED), 1, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) ? errno : 0;
}

static int read_notice(mr_notices *notices, unsigned type, const uint8_t *at, size_t size)
{
    mr_dump *mfc = notices->mfc;
    size_t before = mfc->records.used;
    if (type == RTM_NEWNETCONF || type == RTM_DELNETCONF)
        notices->vifs = 1;
    if (type != RTM_NEWROUTE && type != RTM_DELROUTE)
        return 0;
    int wrong = read_route(mfc, at, size);
    if (wrong || mfc->records.used == before)
        return wrong;
    if (mfc->records.data[before + RECORD_FLAGS])
        mfc->records.used = before; /* unresolved: packets that wait, or have waited too long */
    else if (type == RTM_DELROUTE)
        mfc->records.data[before + RECORD_FLAGS] = MR_REMOVED;
    else
        notices->changes = 1;
    return 0;
}

int mr_notices_feed(mr_notices *notices, const uint8_t *at, size_t size)
{
    while (size >= sizeof(struct nlmsghdr)) {
        struct nlmsghdr header;
        memcpy(&header, at, sizeof header);
        if (header.nlmsg_len < sizeof header || header.nlmsg_len > size)
            return MR_MALFORMED;
        int wrong = read_notice(notices, header.nlmsg_type, at + NLMSG_HDRLEN, header.nlmsg_len - NLMSG_HDRLEN);
        if (wrong)
            return wrong;
        size_t step = NLMSG_ALIGN((size_t)header.nlmsg_len);
        if (step > size)
            step = size;
        at += step;
        size -= step;
    }
    return size ? MR_MALFORMED : MR_MORE;
}

/* Reads one handful; how many, or -errno. */
static int receive_some(mr_notices *notices, int fd, unsigned limit, uint8_t *buffers, int *result)
{
    struct sockaddr_nl from[NOTICES_AT_ONCE] = {0};
    struct iovec vectors[NOTICES_AT_ONCE];
    struct mmsghdr messages[NOTICES_AT_ONCE] = {0};
    for (unsigned i = 0; i < limit; i++) {
        vectors[i] = (struct iovec){.iov_base = buffers + (size_t)i * NOTICE_MAX, .iov_len = NOTICE_MAX};
        messages[i].msg_hdr = (struct msghdr){
            .msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &vectors[i], .msg_iovlen = 1};
    }
    int count = recvmmsg(fd, messages, limit, MSG_DONTWAIT, NULL);
    if (count < 0)
        return -errno;
    for (int i = 0; i < count; i++) {
        int one = MR_MORE;
        if (messages[i].msg_hdr.msg_flags & MSG_TRUNC)
            one = MR_TRUNCATED;
        else if (from[i].nl_pid == 0) /* from the kernel, and from nobody else */
            one = mr_notices_feed(notices, vectors[i].iov_base, messages[i].msg_len);
        if (one != MR_MORE)
            *result = one;
    }
    return count;
}

int mr_notices_receive(mr_notices *notices, int fd, unsigned limit)
{
    uint8_t *buffers = malloc((size_t)NOTICES_AT_ONCE * NOTICE_MAX);
    int result = buffers ? MR_MORE : ENOMEM;
    while (limit && result == MR_MORE) {
        unsigned some = limit < NOTICES_AT_ONCE ? limit : NOTICES_AT_ONCE;
        int count = receive_some(notices, fd, some, buffers, &result);
        if (count == -EINTR)
            continue;
        if (count < 0)
            result = count == -EAGAIN ? MR_DONE : -count;
        else
            limit -= (unsigned)count;
    }
    free(buffers);
    return result;
}

int mr_notices_vifs(const mr_notices *notices)
{
    return notices->vifs;
}

int mr_notices_changes(const mr_notices *notices)
{
    return notices->changes;
}

const mr_dump *mr_notices_mfc(const mr_notices *notices)
{
    return notices->mfc;
}
