"""Addresses at which anybody gets a mailbox: a domain that says nothing about who somebody is."""

from __future__ import annotations

__all__ = ("PUBLIC_MAIL_PROVIDERS",)

_DOMAINS = """
126.com 139.com 163.com 189.cn 21cn.com aliyun.com aol.co.uk aol.com arcor.de att.net bellsouth.net bigpond.com
bluewin.ch bol.com.br bt.com btinternet.com centrum.cz charter.net comcast.net cox.net daum.net duck.com
earthlink.net email.com email.cz email.it fastmail.com fastmail.fm foxmail.com free.fr freemail.hu freenet.de
gmail.com gmx.at gmx.ch gmx.com gmx.de gmx.net googlemail.com hanmail.net hey.com hotmail.co.uk hotmail.com
hotmail.de hotmail.es hotmail.fr hotmail.it hushmail.com icloud.com inbox.com inbox.lv inbox.ru interia.pl
juno.com laposte.net libero.it list.ru live.co.uk live.com live.de live.fr live.it live.nl lycos.com mac.com
mail.com mail.de mail.ru mailbox.org mailfence.com mailinator.com me.com msn.com nate.com naver.com netscape.net
o2.pl online.de op.pl optonline.net optusnet.com.au orange.fr outlook.com outlook.de outlook.es outlook.fr
outlook.it pm.me posteo.de posteo.net proton.me protonmail.ch protonmail.com qq.com rambler.ru rediffmail.com
rocketmail.com runbox.com sapo.pt sbcglobal.net seznam.cz sfr.fr shaw.ca sina.cn sina.com sky.com skynet.be
sohu.com startmail.com swissmail.org sympatico.ca t-online.de talktalk.net telenet.be telus.net tin.it
tiscali.it tuta.com tuta.io tutamail.com tutanota.com tutanota.de ukr.net uol.com.br verizon.net virgilio.it
virginmedia.com wanadoo.fr web.de windstream.net wp.pl ya.ru yahoo.ca yahoo.co.in yahoo.co.jp yahoo.co.uk
yahoo.com yahoo.com.au yahoo.com.br yahoo.de yahoo.es yahoo.fr yahoo.it yandex.com yandex.ru yeah.net
yopmail.com zoho.com zohomail.com
"""

PUBLIC_MAIL_PROVIDERS = frozenset(_DOMAINS.split())
"""Domains, in lower case. Short, and no list of everything: it keeps the common mistake from being made."""
