/* What Python may call of native/*.c, read by cffi (_native_build.py). One section for each user.
 * Unless said otherwise a function returns 0 or an errno. Every call releases the interpreter lock. */

/* --- numbers of the kernel's headers --- */
#define MRT_INIT ...
#define MRT_ASSERT ...
#define MRT_PIM ...
#define MRT_TABLE ...
#define SO_RXQ_OVFL ...
#define SO_RCVBUFFORCE ...
#define IGMPMSG_NOCACHE ...
#define IGMPMSG_WRONGVIF ...
#define IGMPMSG_WHOLEPKT ...
#define IGMPMSG_WRVIFWHOLE ...
#define RTPROT_MROUTED ...
#define RTPROT_STATIC ...
#define NETLINK_GET_STRICT_CHK ...

/* --- multicast routing sockets: mroute.c --- */
#define MR_BATCH_MAX ...
#define MR_FORWARDING ...

/* Add or replace n entries; errnos[i] is 0, or why entry i was refused. Return how many were refused. */
int mr_program4(int fd, unsigned n, const uint8_t *keys, const uint8_t *forwardings, int32_t *errnos);
int mr_program6(int fd, unsigned n, const uint8_t *keys, const uint8_t *forwardings, int32_t *errnos);
int mr_delete4(int fd, unsigned n, const uint8_t *keys, int32_t *errnos);
int mr_delete6(int fd, unsigned n, const uint8_t *keys, int32_t *errnos);
/* Read packets, bytes and wrong_if of n entries. */
int mr_counters4(int fd, unsigned n, const uint8_t *keys, uint64_t *counters, int32_t *errnos);
int mr_counters6(int fd, unsigned n, const uint8_t *keys, uint64_t *counters, int32_t *errnos);

int mr_add_vif4(int fd, unsigned vif, unsigned ifindex, unsigned threshold);
int mr_add_vif6(int fd, unsigned vif, unsigned ifindex, unsigned threshold);
int mr_del_vif4(int fd, unsigned vif);
int mr_del_vif6(int fd, unsigned vif);
/* Packets in, packets out, bytes in, bytes out. EADDRNOTAVAIL, EINVAL: no such VIF. */
int mr_vif_counters4(int fd, unsigned vif, uint64_t counters[4]);
int mr_vif_counters6(int fd, unsigned vif, uint64_t counters[4]);

/* The entry calls alone, over an array of the kernel's own structures: the floor that tests/bench/bench_mfc.py compares with. */
#define MR_PREPARED4 ...
#define MR_PREPARED6 ...
void mr_prepare4(unsigned n, const uint8_t *keys, const uint8_t *forwardings, uint8_t *prepared);
void mr_prepare6(unsigned n, const uint8_t *keys, const uint8_t *forwardings, uint8_t *prepared);
int mr_floor4(int fd, unsigned n, const uint8_t *prepared);
int mr_floor6(int fd, unsigned n, const uint8_t *prepared);

/* --- upcalls: upcall.c --- */
#define MR_UPCALL ...

/* Let nothing but upcalls into the socket's queue. */
int mr_filter_upcalls4(int fd);
int mr_filter_upcalls6(int fd);
/* Write the MR_UPCALL bytes of one upcall and return 1, or return 0: the bytes are none. */
int mr_decode_upcall4(const uint8_t *packet, size_t size, uint8_t *out);
int mr_decode_upcall6(const uint8_t *packet, size_t size, uint8_t *out);

typedef struct {
    unsigned upcalls;   /* written */
    unsigned garbage;   /* packets that were no upcalls */
    uint32_t lost;      /* SO_RXQ_OVFL as of the last packet read that told it; 0 = none did */
} mr_received;
/* Read at most `limit` packets without waiting; EAGAIN is no error. */
int mr_receive4(int fd, unsigned limit, uint8_t *out, mr_received *received);
int mr_receive6(int fd, unsigned limit, uint8_t *out, mr_received *received);

/* --- dumps of the MFC: mfc_dump.c --- */
typedef struct mr_dump mr_dump;

#define MR_MORE ...
#define MR_DONE ...
#define MR_MALFORMED ...
#define MR_TRUNCATED ...

mr_dump *mr_dump_new(int ipv6, uint32_t sequence);
void mr_dump_free(mr_dump *dump);
/* Send the request; table 0 = every table (the kernel's numbers). */
int mr_dump_request(const mr_dump *dump, int fd, uint32_t table);
/* Decode one received buffer: MR_MORE, MR_DONE, an errno (> 0), or MR_MALFORMED. */
int mr_dump_feed(mr_dump *dump, const uint8_t *buffer, size_t size);
/* Receive and decode to the end: MR_DONE, an errno (> 0), MR_MALFORMED or MR_TRUNCATED. */
int mr_dump_run(mr_dump *dump, int fd);
int mr_dump_interrupted(const mr_dump *dump);
/* Records: u64 packets, bytes, wrong_if; double seconds since the last use (-1 = not said); u32 paths; u8 protocol, unresolved; key. */
size_t mr_dump_count(const mr_dump *dump);
size_t mr_dump_record_size(const mr_dump *dump);
const uint8_t *mr_dump_records(const mr_dump *dump);
/* Distinct paths, one after the other: i32 iif, u32 number of oifs; then i32 ifindex and u32 TTL of each, sorted. */
size_t mr_dump_paths_size(const mr_dump *dump);
const uint8_t *mr_dump_paths(const mr_dump *dump);

/* --- notifications of changes: notifications.c --- */
typedef struct mr_notices mr_notices;

#define MR_REMOVED ...
#define RTNLGRP_IPV4_MROUTE ...
#define RTNLGRP_IPV6_MROUTE ...
#define RTNLGRP_IPV4_NETCONF ...
#define RTNLGRP_IPV6_NETCONF ...
#define NETLINK_ADD_MEMBERSHIP ...

/* Let neither our own additions and changes (rtm_protocol 17) nor unresolved entries into the queue. */
int mr_filter_notices(int fd);
mr_notices *mr_notices_new(int ipv6);
void mr_notices_free(mr_notices *notices);
/* Decode one received buffer: MR_MORE, ENOMEM, or MR_MALFORMED. */
int mr_notices_feed(mr_notices *notices, const uint8_t *buffer, size_t size);
/* Read and decode at most `limit` datagrams without waiting: MR_DONE = there are no more now, MR_MORE = there may be,
 * an errno (> 0; ENOBUFS: some were lost), MR_MALFORMED or MR_TRUNCATED. */
int mr_notices_receive(mr_notices *notices, int fd, unsigned limit);
/* Whether an interface's mc_forwarding may have changed. */
int mr_notices_vifs(const mr_notices *notices);
/* Whether there is any entry that was not removed. */
int mr_notices_changes(const mr_notices *notices);
/* The entries: records of a dump whose byte `unresolved` is MR_REMOVED where an entry was removed, else 0. */
const mr_dump *mr_notices_mfc(const mr_notices *notices);

/* --- privileges: privileges.c --- */
int pv_get(uint64_t sets[5]);       /* permitted, effective, inheritable, bounding, ambient */
int pv_set(uint64_t permitted, uint64_t effective, uint64_t inheritable);
int pv_drop_bounding(uint64_t keep);
int pv_clear_ambient(void);
int pv_raise_ambient(uint64_t capabilities);
int pv_set_no_new_privs(void);
int pv_get_no_new_privs(void);      /* 1 or 0 */
int pv_set_parent_death_signal(int number);
int pv_close_proc(void);            /* PR_SET_DUMPABLE 0 */

/* --- system calls that the server has no use for: confine.c --- */
int pv_confine(void);               /* needs no_new_privs; ENOSYS or EINVAL = this system has no filters */

/* --- memberships: joins.c --- */
typedef struct {
    int any_source;     /* the group is joined whatever the source */
    unsigned sources;   /* joined sources, of which not more were written than there was room for */
} jn_state;
/* Have a UDP socket queue nothing, and hear of no group that others have joined. */
int jn_deaf(int fd, int ipv6);
/* Join or leave a group on an interface; ENOBUFS, ENOMEM: the socket takes no more of them. */
int jn_group(int fd, int ipv6, int join, uint32_t ifindex, const uint8_t *group);
/* The same for one source of a group. */
int jn_source(int fd, int ipv6, int join, uint32_t ifindex, const uint8_t *group, const uint8_t *source);
/* What the socket has joined of a group on an interface; EADDRNOTAVAIL: nothing. */
int jn_filter(int fd, int ipv6, uint32_t ifindex, const uint8_t *group, unsigned room, uint8_t *sources, jn_state *state);
