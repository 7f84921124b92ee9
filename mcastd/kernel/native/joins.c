/* Memberships of join sockets: RFC 3678's protocol-independent calls, which take an ifindex in both families. */

typedef struct {
    int any_source;
    unsigned sources;
} jn_state;

static int level_of(int ipv6)
{
    return ipv6 ? IPPROTO_IPV6 : IPPROTO_IP;
}

static void set_address(struct __kernel_sockaddr_storage *to, int ipv6, const uint8_t *packed)
{
    memset(to, 0, sizeof *to);
    if (ipv6) {
        struct sockaddr_in6 *six = (struct sockaddr_in6 *)to;
        six->sin6_family = AF_INET6;
        memcpy(&six->sin6_addr, packed, 16);
    } else {
        struct sockaddr_in *four = (struct sockaddr_in *)to;
        four->sin_family = AF_INET;
        memcpy(&four->sin_addr, packed, 4);
    }
}

int jn_deaf(int fd, int ipv6)
{
    /* Nothing that arrives is ever queued, and no group counts but those joined on this socket. */
    struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_fprog program = {.len = 1, .filter = code};
    int off = 0;
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program))
        return errno;
    return setsockopt(fd, level_of(ipv6), ipv6 ? IPV6_MULTICAST_ALL : IP_MULTICAST_ALL, &off, sizeof off) ? errno : 0;
}

int jn_group(int fd, int ipv6, int join, uint32_t ifindex, const uint8_t *group)
{
    struct group_req request;
    memset(&request, 0, sizeof request);
    request.gr_interface = ifindex;
    set_address(&request.gr_group, ipv6, group);
    return setsockopt(fd, level_of(ipv6), join ? MCAST_JOIN_GROUP : MCAST_LEAVE_GROUP, &request, sizeof request) ? errno : 0;
}

int jn_source(int fd, int ipv6, int join, uint32_t ifindex, const uint8_t *group, const uint8_t *source)
{
    struct group_source_req request;
    memset(&request, 0, sizeof request);
    request.gsr_interface = ifindex;
    set_address(&request.gsr_group, ipv6, group);
    set_address(&request.gsr_source, ipv6, source);
    int option = join ? MCAST_JOIN_SOURCE_GROUP : MCAST_LEAVE_SOURCE_GROUP;
    return setsockopt(fd, level_of(ipv6), option, &request, sizeof request) ? errno : 0;
}

int jn_filter(int fd, int ipv6, uint32_t ifindex, const uint8_t *group, unsigned room, uint8_t *sources, jn_state *state)
{
    socklen_t size = (socklen_t)GROUP_FILTER_SIZE(room);
    struct group_filter *filter = calloc(1, size);
    if (filter == NULL)
        return ENOMEM;
    filter->gf_interface = ifindex;
    filter->gf_numsrc = room;
    set_address(&filter->gf_group, ipv6, group);
    if (getsockopt(fd, level_of(ipv6), MCAST_MSFILTER, filter, &size)) {
        int number = errno;
        free(filter);
        return number;
    }
    state->any_source = filter->gf_fmode == MCAST_EXCLUDE;
    state->sources = filter->gf_numsrc; /* all there are, whatever the room */
    unsigned width = ipv6 ? 16 : 4;
    /* By its offset: older headers have no other name for it than an array of one. */
    const struct __kernel_sockaddr_storage *one = (const void *)((const char *)filter + GROUP_FILTER_SIZE(0));
    for (unsigned i = 0; i < filter->gf_numsrc && i < room; i++, one++) {
        const void *address = ipv6 ? (const void *)&((const struct sockaddr_in6 *)one)->sin6_addr
                                   : (const void *)&((const struct sockaddr_in *)one)->sin_addr;
        memcpy(sources + i * width, address, width);
    }
    free(filter);
    return 0;
}
