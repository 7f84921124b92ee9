/* Upcalls: the filter that lets nothing else in, and their reading.
 *
 * IPv4: an IP header whose protocol is 0 and whose bytes 8 to 20 are those of struct igmpmsg (ipmr_cache_report,
 * net/ipv4/ipmr.c). IPv6: struct mrt6msg, whose first byte is 0 where ICMPv6 has its type (net/ipv6/ip6mr.c). */

/* u8 kind, u8 0, u16 VIF, group and source in 16 bytes each (IPv4: the first 4). */
#define MR_UPCALL 36
#define PACKET_MAX 256

_Static_assert(sizeof(struct igmpmsg) == 20, "struct igmpmsg");
_Static_assert(sizeof(struct mrt6msg) == 40, "struct mrt6msg");
_Static_assert(IGMPMSG_NOCACHE == MRT6MSG_NOCACHE && IGMPMSG_WRONGVIF == MRT6MSG_WRONGMIF
                   && IGMPMSG_WHOLEPKT == MRT6MSG_WHOLEPKT && IGMPMSG_WRVIFWHOLE == MRT6MSG_WRMIFWHOLE,
               "upcalls have the same numbers in both families");

int mr_filter_upcalls4(int fd)
{
    /* A raw IPv4 socket sees the IP header first; its protocol is byte 9, where igmpmsg has im_mbz. */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, offsetof(struct igmpmsg, im_mbz)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) ? errno : 0;
}

int mr_filter_upcalls6(int fd)
{
    /* Upcalls are queued past this filter (ip6mr_cache_report); everything that came from a wire goes through it. */
    struct icmp6_filter block_all;
    memset(&block_all, 0xff, sizeof block_all);
    return setsockopt(fd, IPPROTO_ICMPV6, ICMPV6_FILTER, &block_all, sizeof block_all) ? errno : 0;
}

static void upcall(uint8_t *out, unsigned kind, unsigned vif, const void *group, const void *source, size_t size)
{
    uint16_t number = (uint16_t)vif;
    memset(out, 0, MR_UPCALL);
    out[0] = (uint8_t)kind;
    memcpy(out + 2, &number, 2);
    memcpy(out + 4, group, size);
    memcpy(out + 20, source, size);
}

int mr_decode_upcall4(const uint8_t *packet, size_t size, uint8_t *out)
{
    struct igmpmsg message;
    if (size < sizeof message)
        return 0;
    memcpy(&message, packet, sizeof message);
    if (message.im_mbz != 0 || message.im_msgtype < IGMPMSG_NOCACHE || message.im_msgtype > IGMPMSG_WRVIFWHOLE)
        return 0;
    upcall(out, message.im_msgtype, message.im_vif | message.im_vif_hi << 8, &message.im_dst, &message.im_src, 4);
    return 1;
}

int mr_decode_upcall6(const uint8_t *packet, size_t size, uint8_t *out)
{
    struct mrt6msg message;
    if (size < sizeof message)
        return 0;
    memcpy(&message, packet, sizeof message);
    if (message.im6_mbz != 0 || message.im6_msgtype < MRT6MSG_NOCACHE || message.im6_msgtype > MRT6MSG_WRMIFWHOLE)
        return 0;
    upcall(out, message.im6_msgtype, message.im6_mif, &message.im6_dst, &message.im6_src, 16);
    return 1;
}

typedef struct {
    unsigned upcalls;
    unsigned garbage;
    uint32_t lost;
} mr_received;

static int receive(int fd, unsigned limit, uint8_t *out, mr_received *received,
                   int (*decode)(const uint8_t *, size_t, uint8_t *))
{
    memset(received, 0, sizeof *received);
    for (unsigned i = 0; i < limit; i++) {
        uint8_t packet[PACKET_MAX]; /* WHOLEPKT carries a whole packet behind the header; its rest is cut off */
        _Alignas(struct cmsghdr) uint8_t control[256];
        struct iovec vector = {.iov_base = packet, .iov_len = sizeof packet};
        struct msghdr message = {
            .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        ssize_t size = recvmsg(fd, &message, MSG_DONTWAIT);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : errno;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL && c->cmsg_len >= CMSG_LEN(sizeof received->lost))
                memcpy(&received->lost, CMSG_DATA(c), sizeof received->lost);
        if (decode(packet, (size_t)size, out + (size_t)received->upcalls * MR_UPCALL))
            received->upcalls++;
        else
            received->garbage++;
    }
    return 0;
}

int mr_receive4(int fd, unsigned limit, uint8_t *out, mr_received *received)
{
    return receive(fd, limit, out, received, mr_decode_upcall4);
}

int mr_receive6(int fd, unsigned limit, uint8_t *out, mr_received *received)
{
    return receive(fd, limit, out, received, mr_decode_upcall6);
}
