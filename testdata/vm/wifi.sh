# An access point over simulated radios, and what a client of it needs. The
# access point has a network namespace of its own, where iwd cannot take its
# radio. "prepare" comes first; "associate NETWORK COMMAND..." starts the command,
# which is to start iwd, and says whether it was let in; "serve NETWORK" and
# "await" do that for who starts iwd in another way.
set -e
dir=/etc/wifi

prepare() {
	modprobe mac80211_hwsim radios=2
	modprobe pkcs8_key_parser # as /usr/lib/modules-load.d/pkcs8.conf of iwd
	ip netns add ap
	iw phy phy0 set netns name ap
	mkdir -p $dir /var/lib/iwd /run/dbus
	cd $dir
	certificates
	access_points
	profiles
	[ -e /run/dbus/system_bus_socket ] || dbus-daemon --system --fork
}

certificates() {
	openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=test CA" -keyout ca.key -out ca.pem \
		-addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign
	for who in server client; do
		openssl req -newkey rsa:2048 -nodes -subj "/CN=$who" -keyout $who.key -out $who.csr
		printf 'basicConstraints=CA:FALSE\nextendedKeyUsage=%sAuth\nkeyUsage=digitalSignature,keyEncipherment\n' $who >ext
		openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile ext -out $who.pem
	done
} 2>/dev/null

# access_point NETWORK reads what else its configuration has.
access_point() {
	{
		printf 'interface=wlan0\ndriver=nl80211\nhw_mode=g\nchannel=1\nctrl_interface=/run/hostapd\n'
		printf 'ssid=%s\nwpa=2\nrsn_pairwise=CCMP\n' "$1"
		cat
	} >"$1.conf"
}

radius='wpa_key_mgmt=WPA-EAP
ieee8021x=1
eap_server=1
eap_user_file=/etc/wifi/users
ca_cert=/etc/wifi/ca.pem
server_cert=/etc/wifi/server.pem
private_key=/etc/wifi/server.key
tls_flags=[DISABLE-TLSv1.3]'

access_points() {
	printf 'wpa_key_mgmt=WPA-PSK\nwpa_passphrase=passphrase1\n' | access_point psk
	printf 'wpa_key_mgmt=SAE\nieee80211w=2\nsae_password=passphrase1\n' | access_point sae
	printf '%s\nopenssl_ciphers=ECDHE-RSA-AES256-GCM-SHA384\n' "$radius" | access_point gcm
	printf '%s\nopenssl_ciphers=ECDHE-RSA-AES128-SHA256\n' "$radius" | access_point cbc
	printf '%s\n' "$radius" | access_point ttls
	printf '%s\n' "$radius" | access_point peap
	printf '"tls" TLS\n"anon" TTLS\n"peap" PEAP\n"user" TTLS-MSCHAPV2,MSCHAPV2 "password" [2]\n' >users
}

profiles() {
	local tls='EAP-Method=TLS\nEAP-Identity=tls\nEAP-TLS-CACert=@/ca.pem\nEAP-TLS-ClientCert=@/client.pem\nEAP-TLS-ClientKey=@/client.key\n'
	profile psk.psk 'Passphrase=passphrase1\n'
	profile sae.psk 'Passphrase=passphrase1\n'
	profile gcm.8021x "$tls"
	profile cbc.8021x "$tls"
	profile ttls.8021x 'EAP-Method=TTLS\nEAP-Identity=anon\nEAP-TTLS-CACert=@/ca.pem\nEAP-TTLS-Phase2-Method=Tunneled-MSCHAPv2\nEAP-TTLS-Phase2-Identity=user\nEAP-TTLS-Phase2-Password=password\n'
	profile peap.8021x 'EAP-Method=PEAP\nEAP-Identity=peap\nEAP-PEAP-CACert=@/ca.pem\nEAP-PEAP-Phase2-Method=MSCHAPV2\nEAP-PEAP-Phase2-Identity=user\nEAP-PEAP-Phase2-Password=password\n'
}

profile() { printf '[Security]\n%b' "${2//@/$dir}" >"/var/lib/iwd/$1"; }

serve() { ip netns exec ap hostapd -B -P /run/hostapd.pid "$dir/$1.conf" >/run/hostapd.log; }

# await ends when a station is authorized or fails to be, or iwd is no more.
await() {
	for n in $(seq 90); do
		if hostapd_cli -p /run/hostapd all_sta 2>/dev/null | grep -q AUTHORIZED; then
			echo authorized
			return
		fi
		[ "$n" -lt 10 ] || pidof iwd >/dev/null || break
		! grep -qs eapFail /run/iwd.log || break
		sleep 1
	done
	echo refused
	tail -n 30 /run/iwd.log >&2 || true
}

associate() {
	serve "$1"
	shift
	"$@" /usr/libexec/iwd -d >/run/iwd.log 2>&1 &
	await
	kill $! 2>/dev/null || true
	wait $! || true
	kill "$(cat /run/hostapd.pid)"
	while pidof hostapd iwd >/dev/null; do sleep .2; done
}

"$@"
