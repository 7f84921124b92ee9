/* Multicast routing sockets: VIFs and MFC entries, in batches.
 *
 * Layouts come from linux/mroute.h and linux/mroute6.h. A key is `table(4) group source`, the table in network order
 * (mcastd.model.address.exact_key); the table is the socket's own and not read here. A forwarding is a u16 parent VIF
 * in machine order and 32 bytes (mcastd.model.route.Forwarding): IPv4 a TTL for each VIF, IPv6 the if_set. */

#define MR_BATCH_MAX 1000
#define MR_KEY4 12
#define MR_KEY6 36
#define MR_FORWARDING 34
#define MR_PREPARED4 sizeof(struct mfcctl)
#define MR_PREPARED6 sizeof(struct mf6cctl)

_Static_assert(sizeof(struct vifctl) == 16, "struct vifctl");
_Static_assert(sizeof(struct mif6ctl) == 12, "struct mif6ctl");
_Static_assert(sizeof(struct mfcctl) == 60, "struct mfcctl");
_Static_assert(sizeof(struct mf6cctl) == 92, "struct mf6cctl");
_Static_assert(sizeof(((struct mfcctl *)0)->mfcc_ttls) == MR_FORWARDING - 2, "mfcc_ttls");
_Static_assert(sizeof(((struct mf6cctl *)0)->mf6cc_ifset) == MR_FORWARDING - 2, "mf6cc_ifset");
_Static_assert(sizeof(vifi_t) == 2 && sizeof(mifi_t) == 2, "VIF numbers");
_Static_assert((int)MRT_INIT == (int)MRT6_INIT && (int)MRT_ASSERT == (int)MRT6_ASSERT && (int)MRT_PIM == (int)MRT6_PIM
                   && (int)MRT_TABLE == (int)MRT6_TABLE, "options have the same numbers in both families");

static void mfc4(struct mfcctl *entry, const uint8_t *key, const uint8_t *forwarding)
{
    memset(entry, 0, sizeof *entry);
    memcpy(&entry->mfcc_mcastgrp, key + 4, 4);
    memcpy(&entry->mfcc_origin, key + 8, 4);
    if (forwarding) {
        memcpy(&entry->mfcc_parent, forwarding, 2);
        memcpy(entry->mfcc_ttls, forwarding + 2, sizeof entry->mfcc_ttls);
    }
}

static void mfc6(struct mf6cctl *entry, const uint8_t *key, const uint8_t *forwarding)
{
    memset(entry, 0, sizeof *entry);
    entry->mf6cc_mcastgrp.sin6_family = AF_INET6;
    entry->mf6cc_origin.sin6_family = AF_INET6;
    memcpy(&entry->mf6cc_mcastgrp.sin6_addr, key + 4, 16);
    memcpy(&entry->mf6cc_origin.sin6_addr, key + 20, 16);
    if (forwarding) {
        memcpy(&entry->mf6cc_parent, forwarding, 2);
        memcpy(&entry->mf6cc_ifset, forwarding + 2, sizeof entry->mf6cc_ifset);
    }
}

static int option(int fd, int level, int name, const void *value, socklen_t size)
{
    return setsockopt(fd, level, name, value, size) ? errno : 0;
}

int mr_program4(int fd, unsigned n, const uint8_t *keys, const uint8_t *forwardings, int32_t *errnos)
{
    int failed = 0;
    for (unsigned i = 0; i < n; i++) {
        struct mfcctl entry;
        mfc4(&entry, keys + (size_t)i * MR_KEY4, forwardings + (size_t)i * MR_FORWARDING);
        errnos[i] = option(fd, IPPROTO_IP, MRT_ADD_MFC, &entry, sizeof entry);
        failed += errnos[i] != 0;
    }
    return failed;
}

int mr_program6(int fd, unsigned n, const uint8_t *keys, const uint8_t *forwardings, int32_t *errnos)
{
    int failed = 0;
    for (unsigned i = 0; i < n; i++) {
        struct mf6cctl entry;
        mfc6(&entry, keys + (size_t)i * MR_KEY6, forwardings + (size_t)i * MR_FORWARDING);
        errnos[i] = option(fd, IPPROTO_IPV6, MRT6_ADD_MFC, &entry, sizeof entry);
        failed += errnos[i] != 0;
    }
    return failed;
}

int mr_delete4(int fd, unsigned n, const uint8_t *keys, int32_t *errnos)
{
    int failed = 0;
    for (unsigned i = 0; i < n; i++) {
        struct mfcctl entry;
        mfc4(&entry, keys + (size_t)i * MR_KEY4, NULL);
        errnos[i] = option(fd, IPPROTO_IP, MRT_DEL_MFC, &entry, sizeof entry);
        failed += errnos[i] != 0;
    }
    return failed;
}

int mr_delete6(int fd, unsigned n, const uint8_t *keys, int32_t *errnos)
{
    int failed = 0;
    for (unsigned i = 0; i < n; i++) {
        struct mf6cctl entry;
        mfc6(&entry, keys + (size_t)i * MR_KEY6, NULL);
        errnos[i] = option(fd, IPPROTO_IPV6, MRT6_DEL_MFC, &entry, sizeof entry);
        failed += errnos[i] != 0;
    }
    return failed;
}

int mr_counters4(int fd, unsigned n, const uint8_t *keys, uint64_t *counters, int32_t *errnos)
{
    int failed = 0;
    for (unsigned i = 0; i < n; i++, counters += 3) {
        struct sioc_sg_req request = {0};
        memcpy(&request.grp, keys + (size_t)i * MR_KEY4 + 4, 4);
        memcpy(&request.src, keys + (size_t)i * MR_KEY4 + 8, 4);
        errnos[i] = ioctl(fd, SIOCGETSGCNT, &request) ? errno : 0;
        failed += errnos[i] != 0;
        counters[0] = request.pktcnt;
        counters[1] = request.bytecnt;
        counters[2] = request.wrong_if;
    }
    return failed;
}

int mr_counters6(int fd, unsigned n, const uint8_t *keys, uint64_t *counters, int32_t *errnos)
{
    int failed = 0;
    for (unsigned i = 0; i < n; i++, counters += 3) {
        struct sioc_sg_req6 request = {0};
        request.grp.sin6_family = AF_INET6;
        request.src.sin6_family = AF_INET6;
        memcpy(&request.grp.sin6_addr, keys + (size_t)i * MR_KEY6 + 4, 16);
        memcpy(&request.src.sin6_addr, keys + (size_t)i * MR_KEY6 + 20, 16);
        errnos[i] = ioctl(fd, SIOCGETSGCNT_IN6, &request) ? errno : 0;
        failed += errnos[i] != 0;
        counters[0] = request.pktcnt;
        counters[1] = request.bytecnt;
        counters[2] = request.wrong_if;
    }
    return failed;
}

/* A VIF number that does not fit its u16 is refused as the kernel refuses 32 and above. */
int mr_add_vif4(int fd, unsigned vif, unsigned ifindex, unsigned threshold)
{
    struct vifctl request = {0};
    if (vif >= MAXVIFS)
        return ENFILE;
    if (threshold > UINT8_MAX || ifindex > INT32_MAX)
        return ERANGE;
    request.vifc_vifi = (vifi_t)vif;
    request.vifc_flags = VIFF_USE_IFINDEX;
    request.vifc_threshold = (unsigned char)threshold;
    request.vifc_lcl_ifindex = (int)ifindex;
    return option(fd, IPPROTO_IP, MRT_ADD_VIF, &request, sizeof request);
}

int mr_add_vif6(int fd, unsigned vif, unsigned ifindex, unsigned threshold)
{
    struct mif6ctl request = {0};
    if (vif >= MAXMIFS)
        return ENFILE;
    /* mif6c_pifi is a u16: a larger index would silently name another interface. */
    if (threshold > UINT8_MAX || ifindex > UINT16_MAX)
        return ERANGE;
    request.mif6c_mifi = (mifi_t)vif;
    request.vifc_threshold = (unsigned char)threshold;
    request.mif6c_pifi = (uint16_t)ifindex;
    return option(fd, IPPROTO_IPV6, MRT6_ADD_MIF, &request, sizeof request);
}

int mr_del_vif4(int fd, unsigned vif)
{
    struct vifctl request = {0};
    if (vif >= MAXVIFS)
        return ENFILE;
    request.vifc_vifi = (vifi_t)vif;
    return option(fd, IPPROTO_IP, MRT_DEL_VIF, &request, sizeof request);
}

int mr_del_vif6(int fd, unsigned vif)
{
    mifi_t request = (mifi_t)vif;
    if (vif >= MAXMIFS)
        return ENFILE;
    return option(fd, IPPROTO_IPV6, MRT6_DEL_MIF, &request, sizeof request);
}

int mr_vif_counters4(int fd, unsigned vif, uint64_t counters[4])
{
    struct sioc_vif_req request = {0};
    if (vif >= MAXVIFS)
        return ENFILE;
    request.vifi = (vifi_t)vif;
    if (ioctl(fd, SIOCGETVIFCNT, &request))
        return errno;
    counters[0] = request.icount;
    counters[1] = request.ocount;
    counters[2] = request.ibytes;
    counters[3] = request.obytes;
    return 0;
}

int mr_vif_counters6(int fd, unsigned vif, uint64_t counters[4])
{
    struct sioc_mif_req6 request = {0};
    if (vif >= MAXMIFS)
        return ENFILE;
    request.mifi = (mifi_t)vif;
    if (ioctl(fd, SIOCGETMIFCNT_IN6, &request))
        return errno;
    counters[0] = request.icount;
    counters[1] = request.ocount;
    counters[2] = request.ibytes;
    counters[3] = request.obytes;
    return 0;
}

void mr_prepare4(unsigned n, const uint8_t *keys, const uint8_t *forwardings, uint8_t *prepared)
{
    for (unsigned i = 0; i < n; i++) {
        struct mfcctl entry;
        mfc4(&entry, keys + (size_t)i * MR_KEY4, forwardings + (size_t)i * MR_FORWARDING);
        memcpy(prepared + (size_t)i * sizeof entry, &entry, sizeof entry);
    }
}

void mr_prepare6(unsigned n, const uint8_t *keys, const uint8_t *forwardings, uint8_t *prepared)
{
    for (unsigned i = 0; i < n; i++) {
        struct mf6cctl entry;
        mfc6(&entry, keys + (size_t)i * MR_KEY6, forwardings + (size_t)i * MR_FORWARDING);
        memcpy(prepared + (size_t)i * sizeof entry, &entry, sizeof entry);
    }
}

int mr_floor4(int fd, unsigned n, const uint8_t *prepared)
{
    for (unsigned i = 0; i < n; i++)
        if (setsockopt(fd, IPPROTO_IP, MRT_ADD_MFC, prepared + (size_t)i * MR_PREPARED4, MR_PREPARED4))
            return errno;
    return 0;
}

int mr_floor6(int fd, unsigned n, const uint8_t *prepared)
{
    for (unsigned i = 0; i < n; i++)
        if (setsockopt(fd, IPPROTO_IPV6, MRT6_ADD_MFC, prepared + (size_t)i * MR_PREPARED6, MR_PREPARED6))
            return errno;
    return 0;
}
