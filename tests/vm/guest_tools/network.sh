# SPDX-License-Identifier: GPL-2.0-or-later
#
# Has each queueing discipline, classifier, action and kind of nftables set or
# statement of this upgrade carry packets. Run after NETWORK in a guest of
# busybox; the last line says that all went well.

set -e
ip link set lo up
carries() { ping -q -c 1 -W 3 127.0.0.1 > /dev/null; }

for kind in codel fq_codel fq_pie pie sfq hhf teql0; do
	tc qdisc add dev lo root $kind 2> /dev/null || [ $kind = teql0 ]
	carries
	tc -s qdisc show dev lo > /dev/null
	tc qdisc del dev lo root 2> /dev/null || [ $kind = teql0 ]
done

# With classes: packets are classified, queues filled, classes changed and deleted.
for kind in drr ets hfsc htb; do
	bands=; class=
	case $kind in
	drr) class="quantum 1500" ;;
	ets) bands="bands 4 strict 2" ;;
	hfsc) bands="default 1"; class="sc rate 10mbit" ;;
	htb) bands="default 1"; class="rate 10mbit" ;;
	esac
	tc qdisc add dev lo root handle 1: $kind $bands
	[ $kind = ets ] || tc class add dev lo parent 1: classid 1:1 $kind $class
	tc filter add dev lo parent 1: protocol ip u32 match ip dst 127.0.0.0/8 flowid 1:1
	carries
	tc -s class show dev lo > /dev/null
	[ $kind = ets ] || tc class change dev lo parent 1: classid 1:1 $kind $class
	tc filter del dev lo parent 1:
	tc qdisc del dev lo root
done

tc qdisc add dev lo clsact
tc filter add dev lo egress protocol ip u32 match ip dst 127.0.0.1 action csum ip icmp
tc filter add dev lo ingress protocol ip u32 match ip dst 127.0.0.1 \
	action skbmod set smac 02:00:00:00:00:01 pipe action ct
tc filter add dev lo egress protocol ip pref 9 u32 match ip dst 127.0.0.1 \
	action gate clockid CLOCK_TAI sched-entry open 200000000
carries
tc -s filter show dev lo egress > /dev/null
tc -s actions list action csum > /dev/null
tc qdisc del dev lo clsact

nft -f - <<'END'
table inet t {
	set s {
		type ipv4_addr . inet_service
		flags interval
		elements = { 127.0.0.0/8 . 1-1000, 10.0.0.0/8 . 80 }
	}
	map m {
		type ipv4_addr : verdict
		elements = { 127.0.0.1 : continue }
	}
	chain out {
		type filter hook output priority 0
		ip daddr vmap @m
		ct state new counter
		ip daddr . udp dport @s counter
		meta mark set 3 log prefix "t " level debug
	}
	chain in {
		type filter hook input priority 0
		ct state established,new counter accept
	}
	chain nat {
		type nat hook postrouting priority 100
		ip daddr 127.0.0.99 snat ip to 127.0.0.2
	}
}
END
carries
ping -q -c 1 -W 3 127.0.0.99 > /dev/null
nft add element inet t s '{ 192.168.0.0/16 . 22 }'
nft delete element inet t s '{ 10.0.0.0/8 . 80 }'
nft list ruleset | grep -q 'counter packets [1-9]'
nft reset counters > /dev/null
nft flush ruleset
echo the network works
